"""Where calls would go and what they would cost, if something failed or a route were another.

``shapes.py`` says what is asked and what is told (pure), ``traffic.py`` reads the traffic there was, ``drafts.py`` says what is
wrong with a route as one edits it. The routing itself is the data plane's own, a room above: ``settings.ROUTE_WHATIF``.
"""
