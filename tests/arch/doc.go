// Package arch checks that the picture in docs/design.md is true of the code: who imports whom, which calls are banned where
// and what to use instead, that every package says what it is for.
package arch
