// Package deploy holds deploy/ against the real broker: whatever rules and dashboard ask for is exported, with those labels and values; the
// commands that alerts name exist; systemd takes the unit and the broker its command line; the image's build line makes a binary that needs
// nothing around it.
//
// testdata/alerts.yml has broken and healthy brokers for each alert, in the form of `promtool test rules`. Tests only see to it that none is
// without; promtool is run by hand.
package deploy
