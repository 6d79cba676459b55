/* train/session_data.h -- a session's data sets, and the order in which they are read. */
#ifndef LRD_TRAIN_SESSION_DATA_H
#define LRD_TRAIN_SESSION_DATA_H

#include "train/session.h"

/* The tokenized sets of training and evaluation: built by rank 0 where the cache lacks them, split where
 * validation_split says so. LRD_ERR_INTERRUPTED: some rank was asked to stop. Collective. */
lrd_status_t lrd_session_open_data(lrd_session_t *session);

/* How records become updates, for the replicas of the grid; as the checkpoint says where the run goes on.
 * LRD_ERR_CONFIG: the settings would make updates of another kind. Not collective. */
lrd_status_t lrd_session_open_loader(lrd_session_t *session);

#endif /* LRD_TRAIN_SESSION_DATA_H */
