"""The ComfyUI nodes, one short file per step of the pipeline."""
