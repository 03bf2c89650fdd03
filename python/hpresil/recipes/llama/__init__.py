"""A small decoder of the Llama kind over bytes.

``config.py`` is its size, ``model.py`` the network, ``optimizer.py`` what it is trained with and
``train.py`` the training program (``hpresil run -m hpresil.recipes.llama.train --data FILE``).
"""
