# The R peer flexmix in a process of its own: Rscript peers.R FILE K
#
# After one line about itself, each line of standard input, a number of fits, is
# answered by one line of JSON with the CPU seconds of every fit.

say <- function(...) {
  cat(jsonlite::toJSON(list(...), digits = NA, auto_unbox = TRUE), "\n", sep = "")
  flush(stdout())
}

for (package in c("jsonlite", "flexmix")) {
  if (!requireNamespace(package, quietly = TRUE)) {
    cat("{\"missing\":\"R package ", package, "\"}\n", sep = "")
    quit()
  }
}
suppressMessages(library(flexmix))

arguments <- commandArgs(trailingOnly = TRUE)
table <- read.csv(arguments[1])
experts <- as.integer(arguments[2])
inputs <- paste(grep("^x", names(table), value = TRUE), collapse = " + ")

# flexmix starts from the partition itself: its first step is the M-step. All
# components are kept; its variances have divisor n - p, so that it ends a little
# below the maximum of the likelihood.
fit <- function(rows) {
  flexmix(
    as.formula(paste("y ~", inputs)),
    data = rows,
    cluster = rows$z0 + 1,
    concomitant = FLXPmultinom(as.formula(paste("~", inputs))),
    control = list(tolerance = 1e-10, iter.max = 2000, minprior = 0)
  )
}

# R compiles functions as they are first used: a small fit pays for that.
if (nrow(table) > 1000) invisible(fit(table[1:1000, ])) else invisible(fit(table))
say(versions = list(
  R = paste(R.version$major, R.version$minor, sep = "."),
  flexmix = as.character(packageVersion("flexmix"))
))

requests <- file("stdin", open = "r")
while (length(line <- readLines(requests, n = 1)) > 0) {
  cpu <- numeric(0)
  wall <- numeric(0)
  for (repetition in seq_len(as.integer(line))) {
    taken <- system.time(found <- fit(table))
    cpu <- c(cpu, taken[["user.self"]] + taken[["sys.self"]])
    wall <- c(wall, taken[["elapsed"]])
  }
  say(
    cpu_seconds = I(cpu),
    wall_seconds = I(wall),
    log_likelihood = as.numeric(logLik(found)),
    iterations = found@iter
  )
}
