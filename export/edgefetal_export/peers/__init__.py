"""Other tools that do our work, on the same recordings and pictures, in turns: what `edgefetal bench --baseline` runs.

Each peer has a process of its own, so that none brings its threads, its memory or its crash into another's figures. It
is used by its own public API and the settings that its documentation recommends, on all cores. Those that only run
networks stand in our examination, in the place of ours, with our preprocessing and geometry; the others do all of it
their way.

    table.py         the peers by name, what each is and needs
    peer.py          what a peer is told, and what it answers
    process.py       a peer in its process
    beside.py        the rounds: every peer examines every recording, and measures every picture
    in_place.py      ours, and the float graph in onnxruntime, in the place of our network
    openvino_graphs.py  graphs in OpenVINO as it comes, likewise
    pytorch.py       PyTorch, eager and compiled, likewise
    quantisers.py    onnxruntime's and NNCF's quantisers, likewise
    notebook.py      a loop of OpenCV and onnxruntime
    scikit_image.py  a loop with scikit-image's geometry
    whole_stack.py   a whole stack held in memory
    fitting.py       what these three share
"""
