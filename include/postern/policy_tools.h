/*
 * policy_tools: what people do with policies before a proxy has them: format, look for what is
 * doubtful, hold against expectations, compare, try on what was logged, and make from it.
 *
 * Pure: bytes and parsed files in, text out through a buf; no file is opened here, nothing is
 * asked. A command's output, exit status and limits: docs/policy-tools.md. Everything is bounded,
 * and where a bound is reached the answer is "not known", never "no difference" or "nothing found".
 * Thread: any. Failures fill a struct err.
 */
#ifndef POSTERN_POLICY_TOOLS_H
#define POSTERN_POLICY_TOOLS_H

#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

enum { POLICY_TOOLS_TEXT_MAX = 64 << 20 };

/* --- fmt ---------------------------------------------------------------------------------------
 */
/* The canonical form of a Policy file that conf_parse_policy has taken: means the same, has the
 * same comments, and is its own canonical form. -1: it cannot be had without losing something. */
int policy_fmt(const char *name, struct str text, struct buf *out, struct err *err);

#endif
