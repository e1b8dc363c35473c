"""From settings to images; start with `pipeline.py`. This file imports nothing, so that light modules stay light."""
