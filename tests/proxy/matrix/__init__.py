"""Each persistence method in each situation, against nodes that record what reached them.

    methods.py      one object per method: its class, how a user of it behaves, its application
    situations.py   one story per situation, told of any method
    table.py        the cells: what runs, and why the rest does not apply
    stage.py        the proxy of one method: each situation has its own server, pool and class
    visitor.py      one user, and what every answer must be in every situation
    application.py  the nodes

tests/proxy/test_80_matrix.py runs them. What they expect is in docs/internals/decisions.md.
"""
