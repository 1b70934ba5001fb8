package config

import (
	"fmt"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// Parse overwrites dst, a pointer to a struct that holds the defaults, with what YAML (or
// JSON) says, by the rules of a configuration file: koanf tags, unknown keys are errors,
// durations have units. name is what errors call it.
func Parse(data []byte, dst any, name string) error {
	tree, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		return fmt.Errorf("%s is not YAML: %s", name, firstLine(err))
	}
	k := koanf.New("\x00") // names of calls have dots
	if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return decode(k, dst, name)
}
