"""``quake-streamer notify``: carries alerts from Redis to those who are to hear of them.

Each sink (``[to.NAME]``) has a consumer group, a thread and a rate limit of its own, so that one that is dead holds up no
other. What is sent at all is decided in `deciding`, in which words in `wording`; `delivery` tries until it is done. A
sink is one file: its keys, its rendering and its sending side by side.
"""
