// Package browser runs the demo page in a real browser, against a real hongyan dev. setup.sh
// installs what it needs; without it the test is skipped, unless HONGYAN_REQUIRE_BROWSER is set.
// With HONGYAN_SCREENSHOTS=DIR it leaves pictures there.
package browser
