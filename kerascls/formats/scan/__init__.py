"""Model files are programs: what stands in one is read here before any of it runs, and what might do harm is refused.

`containers` opens Keras files by `archives` (zip) and `hdf5`, within `limits`. `layers` goes through the configuration
of a Keras model, `graphs` through the graph of a SavedModel, and `programs` through .tflite, .onnx and OpenVINO files.
`isolated` gives what may crash its reader a process of its own, with bounds of time and memory. Nothing here imports
TensorFlow or Keras, and nothing executes or builds what it reads.
"""
