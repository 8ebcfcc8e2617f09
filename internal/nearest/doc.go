// Package nearest finds what a mistyped word was meant to be. It is used for "did you mean" in configuration errors and
// API problems, so it must be cheap for hostile input: long words are refused before work is spent on them.
//
// Pure functions, safe for concurrent use.
package nearest
