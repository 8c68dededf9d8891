/* SPDX-License-Identifier: Apache-2.0
 *
 * The cell maker's program, pipsqueak-maker SOCKET LIB: static and small, for every cell is made by
 * forks of it, and what a fork costs is what its parent has mapped.
 */
#include <stdlib.h>

#include "jail/maker.h"

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	maker_main(atoi(argv[1]), argv[2]);
}
