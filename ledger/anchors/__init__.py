"""Put checkpoints where the database's owner can't reach them.

What is anchored can be compared later: whoever rewrites the log would have to reach all
of these places too. `sink` says what a place must do, `anchoring` when it is asked.
"""
