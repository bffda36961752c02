"""The playground: a page in a browser that samples trained runs and shows how images emerge.

    _controls   what a sampler's or grid's own signature offers, for the page to draw
    _models     the runs, their weights, and what the page must know of them
    _request    from the bytes of a request to work that is allowed, or a message
    _walks      from a request to pictures, step by step
    _line       one worker, a bounded queue, a time limit
    _server     HTTP: the page, its facts, a stream of pictures

The server listens on the loopback address unless told otherwise, takes nothing from other sites, loads nothing from
the network and reports to nobody. A request is bounded before it waits (images, steps, bytes), while it waits (places
in the queue) and while it runs (seconds, and the client still being there), so no request can take the process down.

It is Starlette and one page of our own rather than a toolkit of widgets: a sampler yields its states one by one, and
the page draws each of them; every image carries what made it; and there is nothing to fetch.
"""
