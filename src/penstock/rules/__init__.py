"""Rules: the machines that decide, without waiting.

Does        say what to do, once per batch: what to send again, what is in flight, who is dead.
Does not    wait, send, read a clock or draw a random number: those are handed in.
"""
