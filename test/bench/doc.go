// Package bench holds the benchmarks of the whole: an agent on an embedded etcd,
// asked through its socket. Figures that matter are ratios, measured in turn in
// one run; absolute times are the machine's.
package bench
