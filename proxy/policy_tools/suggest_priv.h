/* suggest_priv: paths of requests as items of a policy (suggest_paths.c). */
#ifndef POSTERN_POLICY_SUGGEST_PRIV_H
#define POSTERN_POLICY_SUGGEST_PRIV_H

#include <postern/policy_tools.h>

#include "tally.h"

/* The item for a judged path, in the policy's own words; owned. `cut`: only its beginning is known.
 */
char *suggest_path_item(struct str path, bool cut);
/* Items that differ in one segment only, many of them, become one with {} there. */
void suggest_paths_merge(const struct tally *items, struct tally *ret);
bool suggest_path_is_template(const char *item);

#endif
