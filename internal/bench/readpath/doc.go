// Package readpath measures what each way from a file to a socket costs on this machine: the comparison that decides how a broker
// serves hot and cold bytes (docs/design.md §5, §6).
//
// One thread reads a file in order and sends it over a loopback connection to another process, which drops it. Processor time is the
// thread's. This is the one place that reads data through a mapping, to show what that would give.
package readpath
