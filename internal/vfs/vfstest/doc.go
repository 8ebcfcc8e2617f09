// Package vfstest holds the contract of vfs.FS as a test, run on every implementation and decorator.
package vfstest
