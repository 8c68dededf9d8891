/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Open, check, unpack and describe the wheel at path, as the installer does. */
void fuzz_install(const char *path);
