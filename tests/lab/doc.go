// Package lab checks `lagoon-bench lab` from outside: what it says is there, and nothing of it stays, however it ends.
package lab
