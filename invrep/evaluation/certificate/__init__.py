"""Certify pre-images: does Φ take one for its photo, by how much, and does anything else?

A certificate compares each pre-image with its photo, with other photos (the *null*), with distortions of the photo that
people know, with the network's other layers and with other networks.
"""
