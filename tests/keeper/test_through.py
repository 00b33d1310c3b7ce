# SPDX-License-Identifier: BSD-3-Clause
"""All that a front-end may do to a device, and must not, done through a keeper: the same tests."""

# pylint: disable=wildcard-import,unused-wildcard-import
from test_messages import *
from test_null import *
