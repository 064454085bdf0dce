"""What `onnxpress.export.prepare` does to a graph: one concern, one file, one function.

Each function changes a model in place and returns the names of the nodes (for weights: of the values) that it changed
or removed, so that "nothing left to do" is an empty list. All of them rely on unique names (`names.name_uniquely`) and
on constants being initializers of the main graph (`constants.lift`), and reach into the bodies of If, Loop and Scan.
"""
