# One sink, one job: `nomad job run -var sink=webhook -var pipeline=pipeline.yaml worker.nomad.hcl`.
# One job per sink, and not groups of one job: groups are updated together and reverted together.
# README.md has the runbook.

variable "sink" {
  type        = string
  description = "The sink's id in the pipeline file."
}

variable "pipeline" {
  type        = string
  description = "Path of the pipeline file, read where this command runs."
}

variable "driver" {
  type        = string
  default     = "docker"
  description = "docker, or exec or raw_exec for a binary on the clients."
}

variable "image" {
  type        = string
  default     = "cdc-worker:0.1.0"
  description = "For docker. Give every version a tag of its own."
}

variable "command" {
  type        = string
  default     = "/usr/local/bin/cdc-worker"
  description = "For exec and raw_exec."
}

variable "count" {
  type    = number
  default = 1
}

variable "max_count" {
  type        = number
  default     = 4
  description = "Not more than the topics have partitions: further workers would idle."
}

variable "environment" {
  type        = map(string)
  default     = {}
  description = "Settings by variables (CDC_...), without secrets."
}

variable "secrets" {
  type        = string
  default     = ""
  description = "Path of the Nomad variable whose items are the secrets in the environment; default nomad/jobs/cdc-worker-SINK."
}

variable "min_healthy_time" {
  type    = string
  default = "10s"
}

variable "healthy_deadline" {
  type    = string
  default = "3m"
}

variable "progress_deadline" {
  type        = string
  default     = "10m"
  description = "When a version that has not become ready is given up and reverted; until then it is tried again."
}

locals {
  secrets = var.secrets != "" ? var.secrets : "nomad/jobs/cdc-worker-${var.sink}"
  args = [
    "run", "${NOMAD_TASK_DIR}/pipeline.yaml", "--sink", var.sink,
    "--admin", "0.0.0.0:${NOMAD_PORT_admin}",
  ]
}

job "cdc-worker" {
  id   = "cdc-worker-${var.sink}"
  name = "cdc-worker-${var.sink}"
  type = "service"

  group "worker" {
    count = var.count

    # The new worker starts beside the old ones and must be ready (authenticated at its sink) before one
    # of them is stopped. One that never is, is taken back, and the old ones have gone on delivering.
    update {
      max_parallel      = 1
      canary            = 1
      auto_promote      = true
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = var.min_healthy_time
      healthy_deadline  = var.healthy_deadline
      progress_deadline = var.progress_deadline
    }

    restart {
      attempts = 5
      interval = "5m"
      delay    = "2s"
      mode     = "delay"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "5m"
      unlimited      = true
    }

    # For the Nomad autoscaler with its Prometheus plugin: about a minute of lag is worth a worker more.
    scaling {
      enabled = true
      min     = 1
      max     = var.max_count

      policy {
        cooldown            = "2m"
        evaluation_interval = "30s"

        check "lag" {
          source = "prometheus"
          query  = "max(cdc_sink_lag_seconds{sink=\"${var.sink}\"})"

          strategy "target-value" {
            target = 60
          }
        }
      }
    }

    network {
      port "admin" {}
    }

    service {
      name     = "cdc-worker-${var.sink}"
      provider = "nomad"
      port     = "admin"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "worker" {
      driver = var.driver

      # Fits drain_seconds (25): the client's own limit is 30 s unless max_kill_timeout raises it.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image   = var.driver == "docker" ? var.image : null
        ports   = var.driver == "docker" ? ["admin"] : null
        command = var.driver == "docker" ? null : var.command
        args    = local.args
      }

      env = merge({ CDC_LOG_FORMAT = "json" }, var.environment)

      template {
        destination = "local/pipeline.yaml"
        data        = file(var.pipeline)
        # The file has no template of Nomad's in it.
        left_delimiter  = "<<<"
        right_delimiter = ">>>"
      }

      template {
        destination = "secrets/cdc.env"
        env         = true
        change_mode = "restart"
        data        = <<-EOT
          {{- if nomadVarExists "${local.secrets}" }}
          {{- with nomadVar "${local.secrets}" }}
          {{- range .Tuples }}
          {{ .K }}={{ .V | toJSON }}
          {{- end }}
          {{- end }}
          {{- end }}
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
