"""What ampd costs, against a loop written by hand and against its peers: `make bench`. Never a test of its own.

A step of a small model takes a millisecond, and a shared machine moves it by more than any of the loops compared here
costs. So nothing is timed alone: all contestants live in one process and take turns, a few steps at a time, and what is
reported is the median over the rounds of the ratio of two neighbours in time, with its quartiles. One more copy of the
hand-written loop runs as a contestant too; how far it is from 1 is how far any of the figures can be trusted.

ampd does not run as a library here, with half of it left out, but as what it is: a real `ampd start` whose worker is
`racer`, with the real loop, link, writer and supervisor, scraped and asked for its status each second.
"""
