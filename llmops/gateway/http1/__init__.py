"""HTTP/1.1 towards providers: connections that are kept, requests in one write, answers whole or as they come.

Written for one use: few origins, many calls, JSON and server-sent events. It follows no redirect, keeps no cookie, unpacks
no body, never sends a request twice and never guesses: what RFC 9112 leaves in doubt is refused, and its connection closed.

    answer.py       an answer as it arrives: its head, how its body ends, its pieces
    connection.py   one connection: a request out, its answer in, time-outs
    pool.py         the connections to one origin: how many, who waits, which are kept
    dialing.py      from a host's name to a connection, to no address but a judged one
"""
