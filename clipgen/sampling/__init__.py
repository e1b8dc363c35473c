"""The sampling loop, prediction types, schedulers and cancellation; nothing here knows a model family or CLIP."""
