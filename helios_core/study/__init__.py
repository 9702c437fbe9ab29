"""Questions asked with trained models and answered on a page: experiments, paired comparisons, the page."""
