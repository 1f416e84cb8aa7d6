"""The audit console under `/console/`: pages made on the server, readable without JavaScript.

`page` is the frame around all of them, `html` the one place where text becomes markup.
"""
