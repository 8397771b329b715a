"""``quake-streamer dashboard``: the web page, a process of its own that reads Redis and can slow no daemon.

`hub` follows Redis in threads and tells browsers, `app` is what they may ask, `guard` who may, `stations` and `marks` are
what is made of what Redis holds: pure. `beside` keeps the process beside a daemon that is to have one. ``static`` is the page
itself: plain modules, no build step, no foreign host.
"""
