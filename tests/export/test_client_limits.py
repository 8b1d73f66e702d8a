"""Every wait of a client has an end, and so has what it takes from a server and whom it sends images to."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import pytest
import torch
from tritonclient.grpc import service_pb2

from bmrl.errors import ServerError, ServerTimeoutError
from bmrl.export import AsyncTritonClient, TritonClient
from tests.export.test_client_failures import strange_server
