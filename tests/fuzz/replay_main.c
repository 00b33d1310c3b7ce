/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a fuzz target over saved samples: every file named, and every file in each folder named.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SAMPLE_MAX (4u << 20)

static int replay_file(const char *path)
{
	uint8_t *data = malloc(SAMPLE_MAX);
	FILE *file = fopen(path, "rb");
	size_t n;

	if (!data || !file) {
		perror(path);
		exit(1);
	}
	n = fread(data, 1, SAMPLE_MAX, file);
	fclose(file);
	/* An exact-size copy lets the address sanitizer see every overrun. */
	data = realloc(data, n ? n : 1);
	if (!data)
		exit(1);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 1;
}

static int replay_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	DIR *dir;
	int nr = 0;

	if (stat(path, &st) < 0) {
		perror(path);
		exit(1);
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path);
	dir = opendir(path);
	if (!dir) {
		perror(path);
		exit(1);
	}
	while ((entry = readdir(dir))) {
		char child[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		nr += replay_path(child);
	}
	closedir(dir);
	return nr;
}

int main(int argc, char **argv)
{
	int nr = 0;

	for (int i = 1; i < argc; i++)
		nr += replay_path(argv[i]);
	printf("%d samples replayed\n", nr);
	return nr > 0 ? 0 : 1;
}
