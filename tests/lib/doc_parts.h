/* A document's way from a file to a proxy, in one process: split, sent as messages, put together.
 */
#ifndef POSTERN_TEST_DOC_PARTS_H
#define POSTERN_TEST_DOC_PARTS_H

#include <postern/agent_docs.h>
#include <postern/conf.h>

/* Every message passes the check of agent_ipc on both hops. False: the file has errors, or is too
 * large. d was initialised. */
bool doc_from_text(enum agent_document which, const char *name, const char *text, size_t len,
                   struct agent_doc *d);

#endif
