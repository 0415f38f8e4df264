package idset_test

import (
	"fmt"

	"github.com/idpool/idpool/idset"
)

func Example() {
	pool, err := idset.Parse("1000-1999,3000")
	if err != nil {
		fmt.Println(err)
		return
	}
	taken := idset.New(1000, 1001, 3000)

	lowest, _ := pool.NextWithout(taken, 0)
	last, _ := pool.NthWithout(taken, pool.CountWithout(taken)-1)
	fmt.Println(pool.CountWithout(taken), "free, from", lowest, "to", last)
	fmt.Println(pool.Remove(taken))
	// Output:
	// 998 free, from 1002 to 1999
	// 1002-1999
}

func ExampleSet_Add() {
	fmt.Println(idset.New(1, 2, 5).Add(idset.Of(idset.Range{Lower: 3, Higher: 4})))
	// Output: 1-5
}

func ExampleSet_Blocks() {
	pool := idset.Of(idset.Range{Lower: 100000, Higher: 4294967295})
	blocks := pool.Blocks(65536)
	first, _ := blocks.Min()
	fmt.Println(blocks.Count(), first)
	// Output: 65534 131072
}

func ExampleParse_error() {
	_, err := idset.Parse("1-100,9-3")
	fmt.Println(err)
	// Output: id set not read: element 2, "9-3", has its lower bound above the higher; 3-9 would do
}
