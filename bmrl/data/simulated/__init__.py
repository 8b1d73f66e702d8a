"""A simulated data set: rendered faces and simulated generators, made in seconds from a seed.

It shows no real person, and nothing is downloaded. Faces come from a parametric renderer (so their 19-class parsing
maps are exact), traces from mechanisms described in the literature; generators differ in nothing else. It shows that a
method and its software work; its scores say nothing about real generators and are never to be compared with a paper's.
"""

from __future__ import annotations

from bmrl.data.simulated.dataset import simulate
from bmrl.data.simulated.faces import Face, render
from bmrl.data.simulated.people import Identity, Photo, draw_identity, draw_photo
from bmrl.data.simulated.report import SimulationReport
from bmrl.data.simulated.simulators import SIMULATORS, Simulator

__all__ = [
    "SIMULATORS",
    "Face",
    "Identity",
    "Photo",
    "SimulationReport",
    "Simulator",
    "draw_identity",
    "draw_photo",
    "render",
    "simulate",
]
