package postgres

const killPlace = "HOLDFAST_TEST_PLACE"

func restoreAndDie() int { return 2 }
