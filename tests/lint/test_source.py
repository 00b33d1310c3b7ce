#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The lint tests' reader of C, on what could fool it: a lint that sees nothing finds nothing."""

import unittest

import source

TEXT = '''/* SPDX */
#define LOOKS_LIKE(a) \\
	int hidden(a) {
/** struct s - a structure.
 * @a: x
 */
struct s {
	int a, *b;
	void (*fn)(int arg, char *p);
	char c[4][2];
	struct {
		int inner;
	} d;
	unsigned int e : 3;
};
static const char *const table[] = { "{", [1] = "a;b" };
/** f() - see. */
int must_check f(int a,
		 char *b);
void printf_like(1, 2) g(const char *fmt, ...);
static inline int h(void)
{
	char c = '{'; /* } */
	return c == '"';
}
typedef struct {
	int raw;
} le;
int last;
'''


class Reader(unittest.TestCase):
    def test_declarations(self):
        found = source.declarations(TEXT)
        self.assertEqual([(d.kind, d.name) for d in found],
                         [("struct", "s"), ("other", ""), ("prototype", "f"), ("prototype", "g"),
                          ("function", "h"), ("struct", ""), ("other", "")])
        self.assertEqual(found[0].fields, ["a", "b", "fn", "c", "d", "e"])
        self.assertEqual(found[2].doc, "/** f() - see. */")
        self.assertEqual(found[4].last_line - found[4].line + 1, 5)
        self.assertEqual(found[3].doc, "")

    def test_code_only(self):
        code = source.code_only('a("b /* c */"); // d\n/* e\n */ f')
        self.assertEqual(code.split(), ['a("', '");', 'f'])
        self.assertEqual(code.count("\n"), 2)

    def test_finds_files(self):
        self.assertIn("src/base/fd.c", source.c_files("src"))
        self.assertGreater(len(source.declarations(source.read("src/base/fd.c"))), 4)


if __name__ == "__main__":
    unittest.main()
