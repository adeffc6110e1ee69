# The coordinator: two of them, one leads and one stands by.
# `nomad job run -var pipeline=pipeline.yaml coordinator.nomad.hcl`
# The pipeline's coordinator section binds 0.0.0.0:8090, has tokens, and names as url where workers
# reach it: an address in front of both, or a name for the service cdc-coordinator.

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
  default     = "cdc-coordinator:0.1.0"
  description = "For docker. Give every version a tag of its own."
}

variable "command" {
  type        = string
  default     = "/usr/local/bin/cdc-coordinator"
  description = "For exec and raw_exec."
}

variable "count" {
  type    = number
  default = 2
}

variable "port" {
  type        = number
  default     = 8090
  description = "The port of coordinator.bind; 0 for one that Nomad chooses."
}

variable "environment" {
  type        = map(string)
  default     = {}
  description = "Settings by variables (CDC_...), without secrets."
}

variable "secrets" {
  type        = string
  default     = "nomad/jobs/cdc-coordinator"
  description = "Path of the Nomad variable whose items are the secrets in the environment."
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
  args = ["serve", "${NOMAD_TASK_DIR}/pipeline.yaml"]
}

job "cdc-coordinator" {
  type = "service"

  group "coordinator" {
    count = var.count

    # One after the other: the other leads meanwhile. Delivery needs neither.
    update {
      max_parallel      = 1
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

    network {
      port "http" {
        static = var.port > 0 ? var.port : null
      }
    }

    service {
      name     = "cdc-coordinator"
      provider = "nomad"
      port     = "http"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "coordinator" {
      driver = var.driver

      kill_signal  = "SIGTERM"
      kill_timeout = "15s"

      config {
        image   = var.driver == "docker" ? var.image : null
        ports   = var.driver == "docker" ? ["http"] : null
        command = var.driver == "docker" ? null : var.command
        args    = local.args
      }

      env = merge({
        CDC_LOG_FORMAT        = "json"
        CDC_COORDINATOR__BIND = "0.0.0.0:${NOMAD_PORT_http}"
        # Where workers that meet the standby find this one once it leads.
        CDC_COORDINATOR__ADVERTISE = "http://${NOMAD_ADDR_http}"
      }, var.environment)

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
          {{- if nomadVarExists "${var.secrets}" }}
          {{- with nomadVar "${var.secrets}" }}
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
