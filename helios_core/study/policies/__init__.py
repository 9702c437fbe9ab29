"""Which variance, anti-drift and boundary policies earn their place."""
