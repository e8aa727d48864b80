"""Files and tensors: reading, preprocessing, resampling and writing pictures. Nothing here knows a model."""
