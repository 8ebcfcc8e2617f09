// Package scenariotest replays the stories that pure packages are tested with: testdata/*.txt in datadriven's form, one world for each.
// What the commands mean is the world's affair; here are the loop around them, and how their words are read.
package scenariotest
