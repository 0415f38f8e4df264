// Package compose tests docker-compose.yml and what stands beside it: that the file
// holds what it should, that dashboard and alert rules name metrics that there are,
// and, with IDPOOL_COMPOSE set by the script run, the cluster itself: brought up from
// images built here, disturbed, and judged by what its users see.
//
// The scenarios share one cluster and run one after another, since each disturbs it
// and leaves it whole. They need a Docker engine and nothing of the host beside it, so
// the engine may be a remote one.
package compose
