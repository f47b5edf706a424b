/*
 * pods: the keeper's own copy of which pods and containers this node has, as its kubelet said last.
 *
 * A set arrives message by message and takes the old one's place as a whole, or not at all. What a
 * caller is looked up by is what the attestor read from its cgroup: the pod's uid first, then the
 * container's id within that pod and nowhere else.
 */
#ifndef POSTERN_KEEPER_PODS_H
#define POSTERN_KEEPER_PODS_H

#include <postern/agent_ipc.h>
#include <postern/keeper.h>

struct keeper_pods; /* opaque */

struct keeper_pods *keeper_pods_new(void);
struct keeper_pods *keeper_pods_free(struct keeper_pods *pods);
/* One message of the kubelet's process. -1: it is out of order, or not in its form; the set in the
 * making is dropped and the one in force stays. *ret_changed: another set is in force now. */
int keeper_pods_take(struct keeper_pods *pods, const union agent_msg *msg, bool *ret_changed,
                     struct err *err);
/* Grows with each change of the set in force; 0: there has been none. */
uint64_t keeper_pods_generation(const struct keeper_pods *pods);
/* NULL: not known. Lent until the next keeper_pods_take. */
const struct keeper_pod *keeper_pods_find(const struct keeper_pods *pods, const char *uid);
const struct keeper_container *keeper_pod_find(const struct keeper_pod *pod, const char *id);

#endif
