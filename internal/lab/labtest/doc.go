// Package labtest opens laboratories (internal/lab) for tests: everything in one goes with the test, what fails fails the test, and
// where no lab can be made the test is skipped, or fails with LAGOON_REQUIRE_ALL=1.
//
// A package that uses it must call Main from its TestMain: the helper processes of a lab are the test binary itself.
package labtest
