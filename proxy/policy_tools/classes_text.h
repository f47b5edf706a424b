/* classes_text: groups of questions in words. */
#ifndef POSTERN_POLICY_CLASSES_TEXT_H
#define POSTERN_POLICY_CLASSES_TEXT_H

#include <jansson.h>

#include "space_priv.h"

/* "spiffe://... -> spiffe://... port 80, GET /a/..."; of each fact the chosen classes, NULL: all.
 */
void classes_put_question(const struct space *s, const uint64_t *const *chosen, bool http,
                          struct buf *out);
json_t *classes_json(const struct space *s, const uint64_t *const *chosen, bool http);

#endif
