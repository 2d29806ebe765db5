"""How compare.py measures: systems are started (systems), watched (processes), loaded (load) and compared (stats).

Nothing here knows what the goals are (cases does) or how a table looks (report does).
"""
