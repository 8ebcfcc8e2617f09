// Package groupstest has the log of one partition of the internal topic in memory, whose durability the test decides.
package groupstest
